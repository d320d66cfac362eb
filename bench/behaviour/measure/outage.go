package measure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// patient is one application in the outage.
type patient struct {
	*app
	browser *browser
	saving  *held // has read its session before
}

// outage stops the database and looks at what browsers get.
func (b *bench) outage(ctx context.Context, libraries []*library) (rows []Row, err error) {
	b.Log("outage")
	var patients []*patient
	for _, l := range libraries {
		a, err := b.plain(ctx, l)
		if err != nil {
			return nil, err
		}
		w, err := a.user(ctx)
		if err != nil {
			return nil, err
		}
		h, err := w.hold(ctx, b.gates, "/set?key=b")
		if err != nil {
			return nil, err
		}
		patients = append(patients, &patient{app: a, browser: w, saving: h})
	}
	if err := b.server.stop(ctx); err != nil {
		return nil, err
	}
	reading := Row{Name: "down", Title: "database down, a page that reads the session"}
	saving := Row{Name: "down, save", Title: "the save fails at the first byte"}
	public := Row{Name: "down, unused", Title: "database down, a page that does not use the session"}
	for _, p := range patients {
		read, err := p.browser.get(ctx, "/read")
		if err != nil {
			return nil, err
		}
		cell := describe(&read)
		if p.lib.checked != "" {
			r, err := p.browser.get(ctx, p.lib.checked)
			if err != nil {
				return nil, err
			}
			cell = fmt.Sprintf("%s if the error of `Get` is ignored, %s if it is checked", cell, describe(&r))
		}
		reading.Cells = append(reading.Cells, cell+after(read.took))

		save, err := p.saving.finish()
		if err != nil {
			return nil, err
		}
		p.browser.take(&save)
		saving.Cells = append(saving.Cells, describe(&save)+after(save.took))

		r, err := p.browser.get(ctx, "/public")
		if err != nil {
			return nil, err
		}
		public.Cells = append(public.Cells, describe(&r))
	}
	if err := b.server.start(ctx); err != nil {
		return nil, err
	}
	for i, p := range patients {
		in, err := p.recovered(ctx)
		if err != nil {
			return nil, err
		}
		kept := "; cookie kept"
		if !in {
			kept = "; logged out for good"
		}
		reading.Cells[i] += kept
	}
	return []Row{reading, saving, public}, nil
}

// describe says what a browser sees.
func describe(r *reply) string {
	switch {
	case r.broken:
		return fmt.Sprintf("%d, cut off", r.status)
	case r.status == http.StatusSeeOther && strings.HasSuffix(r.header.Get("Location"), "/login"):
		return "303 to /login"
	case r.status == http.StatusOK && r.page():
		return "200 and the page"
	case r.page():
		return fmt.Sprintf("%d, followed by the page", r.status)
	}
	return fmt.Sprintf("%d instead of the page", r.status)
}

// after says how long an answer took, if it was long.
func after(d time.Duration) string {
	if d < time.Second/2 {
		return ""
	}
	return fmt.Sprintf(", after %.0f s", d.Seconds())
}

// recovered reports whether the browser is logged in now that the database is back.
// Connections of the time before may have to fail once each.
func (p *patient) recovered(ctx context.Context) (bool, error) {
	const connections = 20
	var errs []error
	for range connections {
		in, err := p.browser.loggedIn(ctx)
		if in {
			return true, nil
		}
		errs = append(errs, err)
	}
	return false, errors.Join(errs...)
}
