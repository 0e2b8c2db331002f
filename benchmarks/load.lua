-- wrk's connections are all made before any of them asks. Under load uvloop accepts one connection each time round its
-- loop, so the first requests of the others would wait, and be nearly all that the 99th percentile shows.
local waiting, milliseconds

function init(arguments)
   waiting, milliseconds = tonumber(arguments[1]), tonumber(arguments[2])
end

function delay()
   if waiting > 0 then
      waiting = waiting - 1
      return milliseconds
   end
   return 0
end
