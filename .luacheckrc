std = "lua54"
max_line_length = 120
self = false -- a method may do without its object
files["spec"] = { std = "+busted" }
