// Shows what the stream brings. All text goes in as text, never as markup.
const messages = document.getElementById("messages");
const state = document.getElementById("state");
const form = document.getElementById("say");
let last = 0;

function show(message) {
	if (message.id <= last) return; // had it before the connection broke
	last = message.id;
	const item = document.createElement("li");
	item.className = message.new ? "new" : "";
	const who = document.createElement("b");
	who.textContent = message.user;
	const text = document.createElement("span");
	text.textContent = message.text;
	item.append(who, text);
	messages.prepend(item);
	document.getElementById("count").textContent = message.count;
}

function say(words, kind) {
	state.textContent = words;
	state.className = "state " + kind;
}

function connect() {
	const stream = new EventSource("/stream");
	stream.onopen = () => say("live", "good");
	stream.onmessage = (e) => show(JSON.parse(e.data));
	stream.addEventListener("bye", () => {
		stream.close();
		look();
	});
	stream.onerror = () => {
		say("reconnecting", "wait");
		// After a broken connection the browser tries again by itself, after an
		// answer that is no stream it does not.
		if (stream.readyState === EventSource.CLOSED) setTimeout(look, 2000);
	};
}

// look finds out why there is no stream: a logout, or only an outage.
async function look() {
	const me = await fetch("/me").catch(() => null);
	if (!me || me.status !== 401) return connect();
	say("logged out", "bad");
	document.querySelector("h1").textContent = "Goodbye";
	messages.replaceChildren(); // they are for those who are logged in
	form.hidden = true;
	document.getElementById("out").hidden = true;
	document.getElementById("bye").hidden = false;
}

if (form) {
	form.addEventListener("submit", async (e) => {
		e.preventDefault();
		const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) }).catch(() => null);
		if (answer && answer.ok) form.reset();
		else say(answer ? "not sent: " + answer.status : "not sent", "bad");
	});
	connect();
}
