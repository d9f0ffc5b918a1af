-- Consumer groups, for a Kong that has none: each request's come from this plugin's configuration, by
-- the consumer's username.
local handler = { PRIORITY = 1000, VERSION = "1.0.0" }

function handler:access(conf)
  kong.client.get_consumer_groups = function()
    local consumer = kong.client.get_consumer()
    local names = consumer and conf.groups[consumer.username]
    if not names then
      return nil
    end
    local groups = {}
    for name in names:gmatch("%w+") do
      groups[#groups + 1] = { id = "id-of-" .. name, name = name, created_at = 1 }
    end
    return groups
  end
end

return handler
