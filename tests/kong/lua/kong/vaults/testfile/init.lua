-- A vault whose secrets are files, so that a test can rotate one.
return {
  VERSION = "1.0.0",
  get = function(conf, resource)
    local file = io.open(conf.folder .. "/" .. resource)
    if not file then
      return nil, "no such secret"
    end
    local value = file:read("*a")
    file:close()
    return value
  end,
}
