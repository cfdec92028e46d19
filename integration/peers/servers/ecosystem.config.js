// Clustered, waits for "ready", and has longer to finish than any request takes.
module.exports = {
  apps: [{
    name: 'app',
    script: process.env.SCRIPT,
    instances: Number(process.env.WORKERS),
    exec_mode: 'cluster',
    wait_ready: true,
    listen_timeout: 10000,
    kill_timeout: Number(process.env.KILL_TIMEOUT),
    vizion: false,
    env: { PORT: process.env.PORT }
  }]
}
