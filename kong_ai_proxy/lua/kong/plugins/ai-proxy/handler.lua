return require("kong.ai_proxy_shim").handler("ai-proxy")
