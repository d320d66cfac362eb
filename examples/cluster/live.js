// Keeps the numbers fresh and the buttons where they are. The page works without.
setInterval(async () => {
	const answer = await fetch("/cluster").catch(() => null);
	if (!answer || !answer.ok) return; // the program has ended
	const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
	for (const shown of document.querySelectorAll("[data-live]")) {
		const next = fresh.getElementById(shown.id);
		shown.textContent = next.textContent;
		shown.className = next.className;
	}
}, 1000);
