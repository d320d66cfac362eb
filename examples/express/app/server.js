'use strict';

// The shop as it was before the move: an ordinary Express application. Nothing in
// it knows about Go.

const express = require('express');
const session = require('express-session');
const PgSession = require('connect-pg-simple')(session);

const shop = require('./shop.json');
const page = require('./page');

const store = new PgSession({
  conString: process.env.DATABASE_URL,
  schemaName: 'schema_system',
  createTableIfMissing: true,
  pruneSessionInterval: 60 * 15,
});

const app = express();
app.disable('x-powered-by');
app.set('trust proxy', 'loopback');

app.use((req, res, next) => {
  res.set({
    'Cache-Control': 'no-store', // the back button shows nobody's page after logout
    'Content-Security-Policy': "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    'Referrer-Policy': 'same-origin',
    'X-Content-Type-Options': 'nosniff',
    'X-Served-By': 'Express',
  });
  next();
});

app.use(session({
  store,
  // The first signs, the others are still accepted.
  secret: [process.env.SESSION_SECRET, ...(process.env.SESSION_SECRET_OLD ?? '').split(/\s+/).filter(Boolean)],
  resave: false,
  saveUninitialized: false,
  cookie: { maxAge: Number(process.env.SESSION_TIMEOUT || 86400000), sameSite: 'lax', secure: 'auto' },
}));

app.use(express.urlencoded({ extended: false, limit: '64kb' }));

app.get('/', (req, res) => res.send(page.shop(view(req))));
app.get('/login', (req, res) => res.send(page.login(view(req))));
app.get('/cart', (req, res) => res.send(page.cart(view(req))));

app.post('/login', (req, res, next) => {
  const name = String(req.body.user ?? '').trim();
  const problem = checkUser(name);
  if (problem) {
    return res.status(422).send(page.login({ ...view(req), problem, input: name }));
  }
  const { user, cart } = req.session;
  req.session.regenerate((err) => { // a new session ID: one that an attacker planted is worth nothing now
    if (err) return next(err);
    if (cart && (!user || user === name)) req.session.cart = cart; // what the last user left is not the next one's
    req.session.user = name;
    flash(req, `Hello, ${name}. You are logged in.`);
    redirect(req, res, next, '/cart');
  });
});

app.post('/logout', (req, res, next) => {
  req.session.destroy((err) => {
    if (err) return next(err);
    res.clearCookie('connect.sid');
    res.redirect(303, '/');
  });
});

app.post('/cart/add', (req, res, next) => {
  const product = shop.products.find((p) => p.id === req.body.item);
  if (!product) return res.status(400).type('text').send('There is no such item.\n');
  const cart = req.session.cart ?? [];
  if (cart.length < shop.maxItems) {
    req.session.cart = [...cart, { item: product.id, addedBy: 'Express' }];
    flash(req, `${product.name} is in your cart.`);
  } else {
    flash(req, 'Your cart is full.');
  }
  redirect(req, res, next, '/');
});

app.post('/cart/remove', (req, res, next) => {
  const cart = req.session.cart ?? [];
  const at = cart.findLastIndex((line) => line.item === req.body.item);
  if (at >= 0) {
    req.session.cart = cart.filter((_, i) => i !== at);
    flash(req, 'One item less.');
  }
  redirect(req, res, next, '/cart');
});

app.get('/me', (req, res) => {
  const { user = null, cart = [] } = req.session;
  res.json({ servedBy: 'Express', user, cart });
});

// view is what the pages show. A flash message is shown once.
function view(req) {
  const { user = '', cart = [], flash } = req.session;
  delete req.session.flash;
  return { user, cart, flash };
}

function flash(req, text) {
  req.session.flash = { text, by: 'Express' };
}

// redirect saves first: the next request may be there before this one has ended,
// and at the other program.
function redirect(req, res, next, to) {
  req.session.save((err) => (err ? next(err) : res.redirect(303, to)));
}

// checkUser says what is wrong with a name, in words for its owner.
function checkUser(name) {
  if (name === '') return 'Please tell us your name.';
  if ([...name].length > shop.maxUser) return `That is a long name! Up to ${shop.maxUser} characters fit here.`;
  return '';
}

const server = app.listen(process.env.PORT ?? 3000, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});

// Requests under way are answered before the program ends.
process.once('SIGTERM', () => {
  server.close(() => store.close());
  server.closeIdleConnections();
});
