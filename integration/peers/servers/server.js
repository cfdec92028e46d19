// The routes of load.Handler for Node, started and ended as PM2's
// documentation has it: send "ready" when listening, close the server on SIGINT.
'use strict'
const http = require('node:http')

const unit = { ms: 1, s: 1e3, m: 6e4, h: 36e5 }

// millis reads a duration that Go has printed, such as 1m30s or 100ms.
function millis (text) {
  let sum = 0
  for (const [, n, u] of text.matchAll(/([\d.]+)(ms|s|m|h)/g)) sum += n * unit[u]
  return sum
}

function echo (req, res) {
  const body = []
  req.on('data', chunk => body.push(chunk))
  req.on('end', () => {
    res.setHeader('Content-Type', 'application/octet-stream')
    res.end(Buffer.concat(body))
  })
}

function slow (res, d) {
  const timer = setTimeout(() => res.end('slow ' + d + '\n'), millis(d))
  res.on('close', () => clearTimeout(timer))
}

function stream (res, d, every) {
  const chunks = Math.floor(millis(d) / millis(every))
  let n = 0
  res.setHeader('Content-Type', 'text/plain; charset=utf-8')
  res.flushHeaders()
  const timer = setInterval(() => {
    res.write('chunk ' + ++n + '\n')
    if (n === chunks) {
      clearInterval(timer)
      res.end('end\n')
    }
  }, millis(every))
  res.on('close', () => clearInterval(timer))
}

const server = http.createServer((req, res) => {
  const url = new URL(req.url, 'http://server')
  const query = name => url.searchParams.get(name)
  res.setHeader('X-Worker', process.pid)
  switch (req.method + ' ' + url.pathname) {
    case 'GET /': return res.end('ok\n')
    case 'POST /echo': return echo(req, res)
    case 'GET /slow': return slow(res, query('d'))
    case 'GET /stream': return stream(res, query('d'), query('every'))
    case 'GET /n': return res.end(query('i'))
  }
  res.statusCode = 404
  res.end()
})

// Node's 5 s would close connections for a reason of its own.
server.keepAliveTimeout = 75e3

server.listen(Number(process.env.PORT), '127.0.0.1', () => process.send('ready'))

process.on('SIGINT', () => {
  server.close(err => process.exit(err ? 1 : 0))
})
