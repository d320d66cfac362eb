package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

const (
	clientTimeout = 30 * time.Second
	maxPause      = 20 * time.Millisecond // of a client between two requests
)

// sample is one request, as its client saw it.
type sample struct {
	at      time.Time // when it was answered
	latency time.Duration
	outcome outcome
}

type outcome int

const (
	answered  outcome = iota // as it should be
	failed                   // an error of the connection, or a status over 399
	loggedOut                // 401, or another user's page
	lost                     // fewer clicks than were acknowledged
)

// client is a user with a browser, who clicks and looks.
type client struct {
	http    *http.Client
	url     string
	name    string
	clicked int // acknowledged
	maybe   int // not answered: counted or not
	samples []sample
}

func newClient(url, name string) *client {
	jar, _ := cookiejar.New(nil) // never an error
	return &client{
		http: &http.Client{
			Jar: jar, Timeout: clientTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport:     &http.Transport{}, // connections of its own
		},
		url: url, name: name,
	}
}

func (c *client) login() error {
	res, err := c.http.PostForm(c.url+"/login", url.Values{"user": {c.name}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSeeOther {
		return fmt.Errorf("login: got %s", res.Status)
	}
	return nil
}

// click counts one, and looks what the answer is worth.
func (c *client) click() outcome {
	res, err := c.http.PostForm(c.url+"/click", nil)
	if err == nil {
		defer res.Body.Close()
	}
	switch {
	case err != nil || res.StatusCode >= 500:
		c.maybe++
		return failed
	case res.StatusCode == http.StatusUnauthorized:
		return loggedOut
	case res.StatusCode != http.StatusSeeOther:
		return failed
	}
	c.clicked++
	return answered
}

// look asks who is logged in and how often he has clicked.
func (c *client) look() outcome {
	res, err := c.http.Get(c.url + "/me")
	if err != nil {
		return failed
	}
	defer res.Body.Close()
	var me struct {
		User   string
		Clicks int
	}
	switch {
	case res.StatusCode == http.StatusUnauthorized:
		return loggedOut
	case res.StatusCode != http.StatusOK || json.NewDecoder(res.Body).Decode(&me) != nil:
		return failed
	case me.User != c.name:
		return loggedOut
	case me.Clicks < c.clicked:
		return lost
	case me.Clicks > c.clicked+c.maybe:
		return failed // something was done twice
	}
	return answered
}

// work clicks and looks until ctx ends.
func (c *client) work(ctx context.Context) {
	for i := 0; ; i++ {
		do := c.click
		if i%2 == 1 {
			do = c.look
		}
		begin := time.Now()
		outcome := do()
		now := time.Now()
		c.samples = append(c.samples, sample{now, now.Sub(begin), outcome})
		select {
		case <-ctx.Done():
			return
		case <-time.After(rand.N(maxPause)):
		}
	}
}

// phase is a stretch of the measurement.
type phase struct {
	name       string
	begin, end time.Time
}

// measure lets clients work while every process is restarted, and writes down what
// they saw. Where that is less than perfect it returns an error.
func measure(ctx context.Context, w io.Writer, url string, c *cluster, clients int, length time.Duration) error {
	all := make([]*client, clients)
	for i := range all {
		all[i] = newClient(url, "client "+strconv.Itoa(i+1))
		if err := all[i].login(); err != nil {
			return err
		}
	}
	working, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for _, cl := range all {
		wg.Go(func() { cl.work(working) })
	}
	phases, err := restartAll(ctx, c, length)
	stop()
	wg.Wait()
	if err != nil {
		return err
	}
	phases[len(phases)-1].end = time.Now() // with what was under way
	fmt.Fprintf(w, "%d clients, each with its own login, click and look in turn while every process is restarted.\n\n", clients)
	return report(w, phases, all)
}

// restartAll restarts one process after the other, and says when each phase was. A
// phase goes on for its length after a restart, which takes less than that.
func restartAll(ctx context.Context, c *cluster, length time.Duration) ([]phase, error) {
	type step struct {
		name string
		do   func() error
	}
	nothing := func() error { return nil }
	steps := []step{{"before", nothing}}
	for _, m := range c.members {
		steps = append(steps, step{"restart of " + m.name, func() error { return c.restart(ctx, m) }})
	}
	var phases []phase
	for _, s := range append(steps, step{"after", nothing}) {
		begin := time.Now()
		if err := s.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(length):
		}
		phases = append(phases, phase{s.name, begin, time.Now()})
	}
	return phases, nil
}

// report prints a line for each phase, and one for all.
func report(w io.Writer, phases []phase, clients []*client) error {
	var samples []sample
	for _, c := range clients {
		samples = append(samples, c.samples...)
	}
	slices.SortFunc(samples, func(a, b sample) int { return a.at.Compare(b.at) })
	total := phase{"all", phases[0].begin, phases[len(phases)-1].end}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "phase\tseconds\trequests\tanswered\terrors\tlogged out\tlost\tlongest gap\tp50\tp99\t")
	var counts [lost + 1]int
	for _, p := range append(phases, total) {
		var latencies []time.Duration
		counts = [lost + 1]int{}
		gap, last := time.Duration(0), p.begin
		for _, s := range samples {
			if s.at.Before(p.begin) || !s.at.Before(p.end) {
				continue
			}
			counts[s.outcome]++
			latencies = append(latencies, s.latency)
			if s.outcome == answered {
				gap, last = max(gap, s.at.Sub(last)), s.at
			}
		}
		gap = max(gap, p.end.Sub(last))
		slices.Sort(latencies)
		fmt.Fprintf(table, "%s\t%.1f\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t\n", p.name, p.end.Sub(p.begin).Seconds(), len(latencies),
			counts[answered], counts[failed], counts[loggedOut], counts[lost], milliseconds(gap),
			milliseconds(quantile(latencies, 0.5)), milliseconds(quantile(latencies, 0.99)))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nanswered: the right page for the right user, with every click that was acknowledged. longest gap: the longest time\nin which no client was answered.")
	if counts[answered] == 0 || counts[failed]+counts[loggedOut]+counts[lost] > 0 {
		return errors.New("the restart was not seamless")
	}
	return nil
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func milliseconds(d time.Duration) string {
	return strings.TrimSuffix(cmp.Or(fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)), "0"), ".0") + " ms"
}
