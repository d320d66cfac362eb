// The benchmark's server on Express, express-session and connect-pg-simple, with
// the settings their documentation recommends for production. Headers that the
// other servers do not send are switched off.
'use strict'

const crypto = require('node:crypto')
const express = require('express')
const session = require('express-session')
const PgStore = require('connect-pg-simple')(session)
const { Pool } = require('pg')

const pool = new Pool({
  connectionString: process.env.DATABASE_URL,
  max: Number(process.env.PGPOOL_MAX || 10)
})

const schema = `CREATE SCHEMA IF NOT EXISTS schema_system;
  CREATE TABLE IF NOT EXISTS schema_system.session (
    sid varchar NOT NULL PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL);
  CREATE INDEX IF NOT EXISTS idx_session_expire ON schema_system.session (expire)`

const app = express()
app.disable('x-powered-by')
app.disable('etag')
app.use(session({
  store: new PgStore({ pool, schemaName: 'schema_system', tableName: 'session' }),
  secret: process.env.SESSION_SECRET || crypto.randomBytes(32).toString('base64'),
  resave: false,
  saveUninitialized: false,
  cookie: { maxAge: 24 * 60 * 60 * 1000 }
}))

const text = (res, status, body) => res.status(status).type('text/plain').send(body)

app.get('/public', (req, res) => text(res, 200, 'public'))

app.get('/login', (req, res, next) => {
  req.session.regenerate((err) => {
    if (err) return next(err)
    const uid = String(req.query.u)
    req.session.user_id = uid
    req.session.counter = 0
    for (let i = 0; i < 12; i++) {
      req.session['k' + String(i).padStart(2, '0')] =
        crypto.createHash('sha256').update(uid + '/' + i).digest('hex')
    }
    text(res, 200, 'ok')
  })
})

app.get('/read', (req, res) => {
  if (!req.session.user_id) return text(res, 401, 'unauthorized')
  text(res, 200, req.session.user_id)
})

app.get('/write', (req, res) => {
  if (!req.session.user_id) return text(res, 401, 'unauthorized')
  req.session.counter++
  text(res, 200, String(req.session.counter))
})

app.get('/new', (req, res) => text(res, 200, req.session.user_id || 'anon'))

app.use((err, req, res, next) => {
  console.error(err)
  if (res.headersSent) return next(err)
  text(res, 503, 'unavailable')
})

pool.query(schema).then(() => {
  const server = app.listen(Number(process.env.PORT))
  const end = () => {
    server.close(() => pool.end().then(() => process.exit(0)))
    server.closeIdleConnections()
  }
  process.on('SIGTERM', end)
  process.on('SIGINT', end)
}).catch((err) => {
  console.error(err)
  process.exit(1)
})
