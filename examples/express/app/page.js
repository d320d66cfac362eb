'use strict';

// The pages, as the Go application's page.html has them.

const shop = require('./shop.json');

// Who serves what, for the table below each page.
const routes = JSON.parse(process.env.ROUTES ?? '[]');

const escapes = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&#34;', "'": '&#39;' };

class Markup {
  constructor(text) {
    this.text = text;
  }
}

// html is a template tag that escapes every value, except what another html made.
function html(strings, ...values) {
  return new Markup(String.raw({ raw: strings }, ...values.map(render)));
}

function render(value) {
  if (value === undefined || value === null || value === false) return '';
  if (Array.isArray(value)) return value.map(render).join('');
  if (value instanceof Markup) return value.text;
  return String(value).replace(/[&<>"']/g, (c) => escapes[c]);
}

const euros = (cents) => (cents / 100).toFixed(2);

const programBadge = (program) => html`<span class="badge ${program.toLowerCase()}">${program}</span>`;

function layout(title, { user, cart, flash, problem }, content) {
  return html`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${problem && 'Error: '}${title} · Corner Shop</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/shop.css">
</head>
<body>
<header>
	<a class="brand" href="/"><svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linejoin="round" aria-hidden="true"><path d="M4 10v10h16V10M3 9l2-5h14l2 5a3 3 0 0 1-6 0 3 3 0 0 1-6 0 3 3 0 0 1-6 0z"/></svg>Corner Shop</a>
	<p class="served">served by ${programBadge('Express')}</p>
	<nav aria-label="Shop">
		<a href="/">Shop</a>
		<a href="/cart">Cart <span class="count">${cart.length}</span></a>
		${user
    ? html`<form method="post" action="/logout"><button class="link">Log out ${user}</button></form>`
    : html`<a href="/login">Log in</a>`}
	</nav>
</header>
<main>
	${flash && html`<p class="note good" role="status"><span>${flash.text}</span> <small>said ${flash.by}</small></p>`}
	${content}
</main>
<aside aria-label="Who serves what">
	<h2>Who serves what</h2>
	<ul class="routes">
		${routes.map(({ path, program }) => html`<li><code>${path}</code> ${programBadge(program)}</li>`)}
	</ul>
	<p>One login and one cart, whoever answers. Restart with <code>-go /cart,/login</code> to give other routes to Go: you stay logged in.</p>
</aside>
</body>
</html>
`.text;
}

exports.shop = (v) => layout('Shop', v, html`<h1>${v.user ? `Hello, ${v.user}` : 'Good things, nearby'}</h1>
	<p class="quiet">What you take goes into your cart, whichever program puts it there.</p>
	<ul class="products">
		${shop.products.map((p) => html`<li>
			<h2>${p.name}</h2>
			<p class="quiet">${p.about}</p>
			<form method="post" action="/cart/add">
				<span class="price">€ ${euros(p.cents)}</span>
				<button name="item" value="${p.id}" aria-label="Add to cart: ${p.name}">Add to cart</button>
			</form>
		</li>`)}
	</ul>`);

exports.cart = (v) => {
  const lines = v.cart.map(({ item, addedBy }) => ({ ...shop.products.find((p) => p.id === item), addedBy })).filter((line) => line.id);
  const total = lines.reduce((sum, line) => sum + line.cents, 0);
  return layout('Cart', v, html`<h1>${v.user ? `${v.user}’s cart` : 'Your cart'}</h1>
	${lines.length > 0
    ? html`<ul class="lines">
		${lines.map((line) => html`<li>
			<span class="name">${line.name} <small>added by ${programBadge(line.addedBy)}</small></span>
			<span class="price">€ ${euros(line.cents)}</span>
			<form method="post" action="/cart/remove"><button class="second" name="item" value="${line.id}" aria-label="Remove: ${line.name}">Remove</button></form>
		</li>`)}
	</ul>
	<p class="total"><span>Total</span> <strong>€ ${euros(total)}</strong></p>`
    : html`<p class="quiet">There is nothing in it yet.</p>`}
	<p class="actions"><a class="button" href="/">${lines.length > 0 ? 'Back to the shop' : 'To the shop'}</a></p>`);
};

exports.login = (v) => layout('Log in', v, html`<h1>Log in</h1>
	<p class="quiet">Any name will do; there is nothing to register and no password. Your cart comes with you.</p>
	${v.problem && html`<p class="note bad" role="alert" id="problem">${v.problem}</p>`}
	<form method="post" action="/login">
		<label for="user">Your name</label>
		<input type="text" id="user" name="user" value="${v.input}" maxlength="${shop.maxUser}" autocomplete="username" autocapitalize="none" spellcheck="false" required autofocus${v.problem && html` aria-invalid="true" aria-describedby="problem"`}>
		<div class="actions"><button>Log in</button></div>
	</form>`);
