package main

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/pgsession/session/internal/pgtest"
)

// databases is the failover cluster that the processes share with -patroni: three
// servers, one of which leads.
type databases struct {
	cluster *pgtest.Patroni
	acting  sync.Mutex // held while a node is changed

	mu     sync.Mutex
	states map[string]string // what each node says of itself
}

// openDatabases starts a failover cluster. Its data is gone afterwards.
func openDatabases(ctx context.Context) (*databases, error) {
	slog.Info("starting three PostgreSQL with Patroni, etcd and HAProxy: about half a minute")
	cluster, err := pgtest.StartPatroni(ctx, pgtest.PatroniOptions{Synchronous: true, Logger: slog.Default()})
	if err != nil {
		return nil, err
	}
	slog.Info("databases", "made of", cluster.Versions())
	return &databases{cluster: cluster, states: map[string]string{}}, nil
}

// watch asks all nodes for their state, again and again until ctx ends.
func (d *databases) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	for {
		var all sync.WaitGroup
		for _, n := range d.cluster.Nodes() {
			all.Go(func() {
				state := n.State() // a frozen one takes a second to say nothing
				d.mu.Lock()
				defer d.mu.Unlock()
				d.states[n.Name] = state
			})
		}
		all.Wait()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// nodeView is one database on the page.
type nodeView struct{ Name, State string }

// view is nil where there is one database that cannot fail over.
func (d *databases) view() []nodeView {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []nodeView
	for _, n := range d.cluster.Nodes() {
		all = append(all, nodeView{n.Name, d.states[n.Name]})
	}
	return all
}

// actions are the buttons of one node.
var actions = map[string]func(*pgtest.Node) error{
	"kill":   (*pgtest.Node).Kill,
	"freeze": (*pgtest.Node).Freeze,
	"resume": func(n *pgtest.Node) error {
		if err := n.Thaw(); err != nil {
			return err
		}
		return n.Start()
	},
}

// actOnNode does what a button of a database says.
func (c *cluster) actOnNode(w http.ResponseWriter, r *http.Request) {
	action, name := r.PathValue("action"), r.PostFormValue("node")
	if c.databases != nil && action == "switchover" {
		c.background("switchover", c.databases.cluster.Switchover)
		http.Redirect(w, r, "/cluster", http.StatusSeeOther)
		return
	}
	do, node := actions[action], c.databases.find(name)
	if do == nil || node == nil {
		http.Error(w, "There is no such database, or no such button.", http.StatusBadRequest)
		return
	}
	c.background(action+" of "+name, func(context.Context) error {
		c.databases.acting.Lock()
		defer c.databases.acting.Unlock()
		return do(node)
	})
	http.Redirect(w, r, "/cluster", http.StatusSeeOther)
}

func (d *databases) find(name string) *pgtest.Node {
	if d == nil {
		return nil
	}
	for _, n := range d.cluster.Nodes() {
		if n.Name == name {
			return n
		}
	}
	return nil
}
