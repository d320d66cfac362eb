// Sends taps and shows the counts that come back: those that are saved.
const button = document.getElementById("tap");
const state = document.getElementById("state");
let socket;

function say(words, kind) {
	state.textContent = words;
	state.className = "state " + kind;
}

function connect() {
	socket = new WebSocket(location.href.replace(/^http/, "ws").replace(/[?#].*/, "") + "socket");
	socket.onopen = () => {
		say("open", "good");
		button.disabled = false;
	};
	socket.onmessage = (e) => {
		const now = JSON.parse(e.data);
		document.getElementById("taps").textContent = now.taps;
		document.getElementById("total").textContent = now.total;
	};
	socket.onclose = (e) => {
		button.disabled = true;
		say("closed: " + e.code + " " + e.reason, "wait");
		setTimeout(look, e.code === 1008 ? 0 : 1000);
	};
}

// look finds out what to do without a socket: log out, or connect again after an
// outage, a restart, or a login in another window. Why a handshake fails a script
// is not told.
async function look() {
	const me = await fetch("/me").catch(() => null);
	if (!me || me.status !== 401) return connect();
	state.className = "state bad";
	document.querySelector("h1").textContent = "Goodbye";
	document.getElementById("in").hidden = true;
	document.getElementById("bye").hidden = false;
}

if (button) {
	button.addEventListener("click", () => socket.send("tap"));
	connect();
}
