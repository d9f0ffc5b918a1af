return {
  name = "testfile",
  fields = {
    { config = { type = "record", fields = {
      { folder = { type = "string", required = true } },
      { ttl = { type = "number", default = 1 } },
    } } },
  },
}
