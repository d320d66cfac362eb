package admintest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// faultsScript looks at what the page shows as a person would: it gives a line for
// every text that lies on another, is cut off or leaves the window, for every
// control that is smaller than a finger or has no name, and for every text that its
// background hides.
const faultsScript = `(() => {
	const faults = [], wide = document.documentElement.clientWidth;
	const say = (what, e, more) => faults.push(what + ": " + JSON.stringify((e.textContent || e.outerHTML).trim().slice(0, 40)) + (more ? " " + more : ""));
	if (document.documentElement.scrollWidth > wide) faults.push("the page is " + document.documentElement.scrollWidth + " pixels wide in a window of " + wide);

	// What is there for a screen reader only, or is not shown.
	const unseen = e => {
		for (let p = e; p; p = p.parentElement) if (p.matches("title, desc, option, .skip") || getComputedStyle(p).clipPath !== "none") return true;
		return !e.checkVisibility();
	};

	// Texts, as their letters lie.
	const texts = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n; n = walk.nextNode();) {
		const e = n.parentElement;
		if (!n.data.trim() || unseen(e)) continue;
		const range = document.createRange();
		range.selectNodeContents(n);
		for (const r of range.getClientRects()) if (r.width > 1 && r.height > 1) texts.push({e, r});
	}
	texts.sort((a, b) => a.r.top - b.r.top);
	const scrolls = e => e.closest(".scroll");
	texts.forEach((a, i) => {
		if (!scrolls(a.e) && (a.r.left < -0.5 || a.r.right > wide + 0.5)) say("outside of the window", a.e, a.r.left.toFixed() + " to " + a.r.right.toFixed());
		for (let j = i + 1; j < texts.length && texts[j].r.top < a.r.bottom - 2; j++) {
			const b = texts[j];
			if (a.e === b.e || scrolls(a.e) || scrolls(b.e)) continue;
			if (Math.min(a.r.right, b.r.right) - Math.max(a.r.left, b.r.left) > 1 && Math.min(a.r.bottom, b.r.bottom) - Math.max(a.r.top, b.r.top) > 3)
				say("on another text", a.e, "and " + JSON.stringify(b.e.textContent.trim().slice(0, 40)));
		}
		const card = a.e.closest(".card, .tile");
		if (card && !scrolls(a.e)) {
			const c = card.getBoundingClientRect();
			if (a.r.left < c.left || a.r.right > c.right + 0.5) say("outside of its card", a.e);
		}
	});
	for (const e of document.querySelectorAll("body *")) {
		const s = getComputedStyle(e);
		if (e.closest("svg") || unseen(e) || e.matches(".scroll, input") || !e.innerText?.trim()) continue;
		if (e.scrollWidth > e.clientWidth + 1 && s.overflowX !== "visible" && s.display !== "inline" && e !== document.body) say("cut off", e);
	}

	// Colours, by WCAG 2.2, 1.4.3.
	const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
	const rgba = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
	const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const seen = new Set();
	const contrast = (e, colour) => {
		let back = e;
		while (back && rgba(getComputedStyle(back).backgroundColor)[3] < 255) back = back.parentElement;
		const key = colour + getComputedStyle(back || document.body).backgroundColor;
		if (seen.has(key)) return;
		seen.add(key);
		const [a, b] = [light(rgba(colour)), light(rgba(getComputedStyle(back || document.body).backgroundColor))];
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) say("too little contrast", e, ratio.toFixed(2));
	};
	for (const {e} of texts) contrast(e, e.closest("svg") ? getComputedStyle(e).fill : getComputedStyle(e).color);
	for (const e of document.querySelectorAll("input:not([type=hidden]), select")) {
		contrast(e, getComputedStyle(e).color);
		if (e.placeholder) contrast(e, getComputedStyle(e, "::placeholder").color);
	}

	// Names, headings, size.
	for (const e of document.querySelectorAll("button, a, summary, input:not([type=hidden]), select, svg:not([aria-hidden])")) {
		const by = (e.getAttribute("aria-labelledby") || "").split(" ").map(id => document.getElementById(id)?.textContent.trim()).join("");
		if (!by && !e.getAttribute("aria-label") && !e.labels?.length && !e.textContent.trim()) say("without a name", e);
		const r = e.getBoundingClientRect();
		if (e.matches("button, summary, input, select, nav a") && e.checkVisibility() && (r.height < 24 || r.width < 24)) say("too small for a finger", e, r.width.toFixed() + " by " + r.height.toFixed());
	}
	const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map(e => +e.tagName[1]);
	if (levels.filter(l => l === 1).length !== 1 || levels[0] !== 1) faults.push("headings: got " + levels + ", want one h1, first");
	levels.forEach((l, i) => { if (i && l > levels[i - 1] + 1) faults.push("headings: h" + l + " after h" + levels[i - 1]); });
	const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
	if (new Set(ids).size !== ids.length) faults.push("an ID is there twice");
	return [...new Set(faults)].slice(0, 12);
})()`

// widths are those of a telephone, a tablet and a desk.
var widths = []int64{360, 768, 1280}

// inspect opens a page at widths, all of them without any, and looks for faults. The
// colours take turns. With SESSION_LOOK it keeps pictures in that folder.
func (b *browser) inspect(name, address string, code int, at ...int64) {
	b.t.Helper()
	if len(at) == 0 {
		at = widths
	}
	for _, width := range at {
		scheme := []string{"light", "dark"}[b.inspected%2]
		b.inspected++
		b.look(scheme, width, 800, 1)
		if got := b.visit(address); got != code {
			b.t.Fatalf("%s: got %d, want %d", name, got, code)
		}
		if folder := os.Getenv("SESSION_LOOK"); folder != "" {
			file := strings.ReplaceAll(fmt.Sprintf("%s-%d-%s.png", name, width, scheme), " ", "-")
			must(b.t, os.WriteFile(filepath.Join(folder, file), b.picture(float64(width)), 0o644))
		}
		for _, fault := range eval[[]string](b, faultsScript) {
			b.t.Errorf("%s, %d pixels, %s: %s", name, width, scheme, fault)
		}
	}
}
