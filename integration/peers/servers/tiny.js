// tiny.Handler for Node: alone a cluster of WORKERS processes, scheduled as
// NODE_CLUSTER_SCHED_POLICY has it; a worker under PM2.
'use strict'
const cluster = require('node:cluster')
const fs = require('node:fs')
const http = require('node:http')

if (cluster.isPrimary) {
  let listening = 0
  cluster.on('listening', () => {
    if (++listening === Number(process.env.WORKERS)) console.log('all listening')
  })
  cluster.on('exit', () => process.exit(1))
  for (let i = 0; i < Number(process.env.WORKERS); i++) cluster.fork()
  process.on('SIGTERM', () => process.exit(0)) // workers end with their channel
} else {
  serve()
}

function serve () {
  const hello = Buffer.from('ok\n')
  const mib = Buffer.alloc(1 << 20, 'x')
  const id = String(process.pid).padStart(8, '0')

  const answer = (res, size) => {
    res.setHeader('X-Worker', id)
    res.setHeader('Content-Type', 'text/plain; charset=utf-8')
    res.setHeader('Content-Length', size)
    // The others say nothing where it is kept open.
    if (res.shouldKeepAlive) res.removeHeader('Connection')
  }
  const server = http.createServer((req, res) => {
    switch (req.url) {
      case '/':
        answer(res, hello.length)
        return res.end(hello)
      case '/mib':
        answer(res, mib.length)
        return res.end(mib)
      case '/file':
        return fs.stat(process.env.TINY_FILE, (err, info) => {
          if (err) {
            res.statusCode = 500
            return res.end()
          }
          answer(res, info.size)
          fs.createReadStream(process.env.TINY_FILE).pipe(res)
        })
    }
    res.statusCode = 404
    res.end()
  })
  server.keepAliveTimeout = 75e3 // Node's 5 s would close the idle connections
  server.listen(Number(process.env.PORT), '127.0.0.1', () => process.send('ready'))
  process.on('SIGINT', () => process.exit(0))
}
