return {
  name = "testgroups",
  fields = {
    { config = { type = "record", fields = {
      { groups = { type = "map", required = true,
        keys = { type = "string" }, values = { type = "string" } } },
    } } },
  },
}
