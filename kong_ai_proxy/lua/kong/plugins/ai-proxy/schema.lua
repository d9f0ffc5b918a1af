return require("kong.ai_proxy_shim").schema("ai-proxy")
