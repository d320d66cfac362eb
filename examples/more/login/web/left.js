// Tells a user who does nothing when the login ends. The page asks, and the server
// does not take that for use: a page that is left open keeps nobody logged in.
"use strict";

const note = document.getElementById("leaving");
const warnSeconds = 120;
const askSeconds = 60; // at least so often: the login may have ended, or gone on, elsewhere

let timer;

async function ask(path, method) {
	clearTimeout(timer);
	let wait = askSeconds;
	try {
		const res = await fetch(path, {method, cache: "no-store"});
		if (res.ok) {
			const {seconds} = await res.json();
			if (seconds <= 0) {
				location.replace("/login");
				return;
			}
			note.hidden = seconds > warnSeconds;
			note.querySelector("b").textContent = seconds > 60 ? "two minutes" : "a minute";
			wait = note.hidden ? Math.min(askSeconds, seconds - warnSeconds) : Math.min(10, seconds);
		}
	} catch {} // an outage is no logout
	timer = setTimeout(ask, wait * 1000 + 100, "/left", "GET");
}

note.querySelector("button").addEventListener("click", () => ask("/left", "POST"));
document.addEventListener("visibilitychange", () => document.hidden || ask("/left", "GET"));
ask("/left", "GET");
