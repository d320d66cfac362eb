// The Express side: a program that runs as many Express applications as a test
// asks for, each with its own options, on the real packages. app.go has the same
// routes in Go.
//
// It is steered by HTTP: the first line of its output is the address of that
// and the versions of the packages. It ends when its input does.
'use strict'

const http = require('node:http')
const util = require('node:util')
const express = require('express')
const session = require('express-session')
const { Pool } = require('pg')

const stores = {
  9: require('connect-pg-simple-9')(session),
  10: require('connect-pg-simple-10')(session)
}

const pools = new Map() // by connection string
const apps = new Map() // by port
const gates = new Map() // by token

function pool (url) {
  if (!pools.has(url)) {
    const p = new Pool({ connectionString: url, max: 8 })
    p.on('error', () => {}) // a test's database is dropped while a connection is idle
    pools.set(url, p)
  }
  return pools.get(url)
}

// gate lets a test hold a request in the middle: wait announces that it has
// come in and returns when the test lets it go.
function gate (token) {
  if (!gates.has(token)) {
    const g = {}
    g.entered = new Promise(resolve => { g.enter = resolve })
    g.released = new Promise(resolve => { g.release = resolve })
    g.wait = () => { g.enter(); return g.released }
    gates.set(token, g)
  }
  return gates.get(token)
}

// documented gives an application the sessions of a document's snippet, which finds
// this environment.
function documented (a, o) {
  class PgSession extends stores[o.major] {
    constructor (options) {
      super(options)
      a.locals.store = this
    }
  }
  const run = new Function('app', 'session', 'PgSession', 'pool', 'process', o.snippet)
  run(a, session, PgSession, pool(o.url), { env: o.env })
}

// configured gives it those of these options.
function configured (a, o) {
  if (o.trustProxy) a.set('trust proxy', 1)
  const store = new stores[o.major]({
    pool: pool(o.url),
    schemaName: o.schema,
    tableName: o.table || undefined,
    createTableIfMissing: !!o.createTable,
    disableTouch: !!o.disableTouch,
    ttl: o.ttl || undefined,
    pruneSessionInterval: false, // the tests prune when they want to
    errorLog: () => {}
  })
  a.locals.store = store
  a.use(session({
    store,
    secret: o.secrets,
    name: o.name || undefined,
    resave: !!o.resave,
    saveUninitialized: !!o.saveUninitialized,
    rolling: !!o.rolling,
    unset: o.unset || undefined,
    proxy: o.proxy || undefined,
    cookie: o.cookie
  }))
}

// app is one application, as people write them.
function app (o) {
  const a = express()
  if (o.snippet) {
    documented(a, o)
  } else {
    configured(a, o)
  }
  a.use(express.json({ strict: false, limit: '10mb' }))

  const ok = res => res.json({ ok: true })
  const reload = req => util.promisify(req.session.reload.bind(req.session))()
  const regenerate = req => util.promisify(req.session.regenerate.bind(req.session))()

  a.get('/state', (req, res) => {
    // A session that was found is the one that the cookie named.
    const known = (req.headers.cookie || '').includes(encodeURIComponent(req.sessionID))
    const { cookie, __created, __renewed, __saves, ...data } = req.session
    res.json({ id: known ? req.sessionID : '', data })
  })
  a.post('/set', (req, res) => { req.session[req.body.key] = req.body.value; ok(res) })
  a.post('/delete', (req, res) => { delete req.session[req.body.key]; ok(res) })
  a.post('/count', (req, res) => { req.session.n = (req.session.n || 0) + 1; ok(res) })
  a.post('/take', (req, res) => {
    const value = req.session.flash
    delete req.session.flash
    res.json({ value: value === undefined ? null : value })
  })
  a.post('/login', async (req, res) => {
    await regenerate(req)
    req.session.user = req.body.user
    ok(res)
  })
  a.post('/renew', async (req, res) => {
    const { cookie, ...data } = req.session
    const maxAge = cookie.originalMaxAge
    await regenerate(req)
    Object.assign(req.session, data)
    req.session.cookie.maxAge = maxAge
    ok(res)
  })
  a.post('/logout', (req, res, next) => {
    req.session.destroy(err => { if (err) next(err); else ok(res) })
  })
  a.post('/maxage', (req, res) => {
    req.session.remember = req.body.ms
    req.session.cookie.maxAge = req.body.ms
    ok(res)
  })
  a.post('/null', (req, res) => { req.session = null; ok(res) })
  a.post('/hold', async (req, res) => {
    await gate(req.query.token).wait()
    req.session[req.body.key] = req.body.value
    ok(res)
  })
  a.post('/holdread', async (req, res) => {
    await gate(req.query.token).wait()
    ok(res)
  })
  // The same with care: the change is saved before the slow part, or made on
  // fresh data after it. docs/moving-from-express.md recommends both.
  a.post('/holdearly', async (req, res) => {
    await reload(req)
    req.session[req.body.key] = req.body.value
    await util.promisify(req.session.save.bind(req.session))()
    await gate(req.query.token).wait()
    ok(res)
  })
  a.post('/holdlate', async (req, res) => {
    await gate(req.query.token).wait()
    try {
      await reload(req)
    } catch {
      res.status(409).json({ error: 'the session has ended' })
      return
    }
    req.session[req.body.key] = req.body.value
    ok(res)
  })
  a.use((err, req, res, next) => { res.status(500).json({ error: err.message }) })
  return a
}

const control = {
  // apps starts an application and answers with its port.
  async apps (o) {
    const a = app(o)
    const server = http.createServer(a)
    server.keepAliveTimeout = 120e3
    await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address()
    apps.set(port, { server, store: a.locals.store })
    return { port }
  },
  async close ({ port }) {
    const { server, store } = apps.get(port)
    apps.delete(port)
    server.closeAllConnections()
    await new Promise(resolve => server.close(resolve))
    await store.close()
    return {}
  },
  // end closes the connections to a database.
  async end ({ url }) {
    const p = pools.get(url)
    pools.delete(url)
    if (p) await p.end()
    return {}
  },
  async prune ({ port }) {
    await util.promisify(apps.get(port).store.pruneSessions.bind(apps.get(port).store))()
    return {}
  },
  async timezone ({ url }) {
    return { timezone: (await pool(url).query('SHOW timezone')).rows[0].TimeZone }
  },
  async entered ({ token }) { await gate(token).entered; return {} },
  async release ({ token }) { gate(token).release(); gates.delete(token); return {} },
  // equal answers with the indices of the pairs of JSON texts that are not the
  // same value to JavaScript.
  async equal ({ pairs }) {
    return { unequal: pairs.flatMap(([a, b], i) => util.isDeepStrictEqual(JSON.parse(a), JSON.parse(b)) ? [] : [i]) }
  }
}

const steering = express()
steering.use(express.json({ limit: '100mb' }))
steering.post('/:command', async (req, res) => {
  try {
    res.json(await control[req.params.command](req.body))
  } catch (err) {
    res.status(500).json({ error: err.message })
  }
})

const version = name => require(name + '/package.json').version
const server = http.createServer(steering)
server.keepAliveTimeout = 120e3
server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({
    port: server.address().port,
    versions: {
      node: process.version,
      express: version('express'),
      'express-session': version('express-session'),
      'connect-pg-simple-9': version('connect-pg-simple-9'),
      'connect-pg-simple-10': version('connect-pg-simple-10'),
      pg: version('pg')
    }
  }))
})
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
