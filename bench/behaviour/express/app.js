// The application on Express, express-session and connect-pg-simple, with the
// settings that their documentation recommends for production. Its routes are those
// of the Go applications. The first line of its output is its port and the
// versions of the packages; it ends when its input does.
'use strict'

const express = require('express')
const session = require('express-session')
const PgStore = require('connect-pg-simple')(session)
const { Pool } = require('pg')

const pool = new Pool({ connectionString: process.env.DATABASE_URL, max: 10 })
pool.on('error', () => {}) // the database is stopped on purpose

const app = express()
app.use(session({
  store: new PgStore({
    pool,
    schemaName: 'schema_system',
    tableName: 'session',
    createTableIfMissing: true,
    pruneSessionInterval: false, // its statements would be counted
    errorLog: () => {}
  }),
  secret: JSON.parse(process.env.SECRETS),
  resave: false,
  saveUninitialized: false,
  cookie: { maxAge: 24 * 60 * 60 * 1000 }
}))

// gate holds a request until the program that measures lets it go.
const gate = async (req) => { if (req.query.gate) await fetch(process.env.GATES + req.query.gate) }

const show = (s) => ['user', 'a', 'b', 'late'].map(k => `${k}=${s[k] || ''}`).join(' ') + '\n'
const page = (req, res) => res.type('text/plain').send('page ' + show(req.session))

app.get('/public', (req, res) => res.type('text/plain').send('page\n'))
app.get('/state', page)
app.get('/read', async (req, res) => {
  const user = req.session.user
  await gate(req)
  if (!user) return res.redirect(303, '/login')
  page(req, res)
})
app.get('/visit', (req, res) => {
  if (req.query.public) res.set('Cache-Control', 'public, max-age=60')
  req.session.a = 'marker'
  page(req, res)
})
app.get('/set', async (req, res) => {
  await gate(req)
  req.session[req.query.key] = 'marker'
  page(req, res)
})
app.get('/login', (req, res, next) => {
  req.session.regenerate((err) => {
    if (err) return next(err)
    req.session.user = 'ada'
    req.session.save((err) => { if (err) next(err); else page(req, res) })
  })
})
app.get('/logout', (req, res, next) => {
  req.session.destroy((err) => { if (err) next(err); else res.type('text/plain').send('page\n') })
})
app.get('/late', async (req, res) => {
  res.type('text/plain')
  res.write('page ')
  res.flushHeaders()
  await gate(req)
  req.session.late = 'marker'
  res.end(show(req.session))
})

const server = app.listen(0, '127.0.0.1', () => {
  const version = name => require(name + '/package.json').version
  console.log(JSON.stringify({
    port: server.address().port,
    versions: ['express', 'express-session', 'connect-pg-simple'].map(name => `${name} ${version(name)}`)
  }))
})
server.keepAliveTimeout = 120e3
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
