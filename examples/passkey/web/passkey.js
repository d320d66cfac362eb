// A form with data-passkey does a ceremony: it asks the server for a challenge, the
// authenticator to answer it, and the server what it thinks of the answer.
"use strict";

async function post(path, body) {
	const res = await fetch(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
	const answer = await res.json().catch(() => ({problem: "We have a problem on our side. Please try again in a moment."}));
	if (!res.ok && !answer.next) throw new Error(answer.problem);
	return answer;
}

async function ceremony(form) {
	const path = form.dataset.passkey;
	let answer = await post(path + "/begin", Object.fromEntries(new FormData(form)));
	if (!answer.next) {
		const {publicKey} = answer;
		const credential = publicKey.user
			? await navigator.credentials.create({publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(publicKey)})
			: await navigator.credentials.get({publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(publicKey)});
		answer = await post(path + "/finish", credential.toJSON());
	}
	location.assign(answer.next ?? form.dataset.next); // the server may send elsewhere
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
	const button = form.querySelector("button"), problem = form.querySelector("[role=alert]");
	form.addEventListener("submit", async event => {
		event.preventDefault();
		button.disabled = problem.hidden = true;
		try {
			await ceremony(form);
		} catch (e) {
			problem.textContent = e.name === "NotAllowedError" ? "No passkey was used: there is none, or you stopped it, or it did not know you." :
				e.name === "InvalidStateError" ? "This authenticator has a passkey of yours already." : e.message;
			problem.hidden = false;
		} finally {
			button.disabled = false;
		}
	});
}
