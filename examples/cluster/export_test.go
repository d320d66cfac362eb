package main

import "context"

var NewBalancer = newBalancer

// Add is add and open.
func (b *balancer) Add(name, host string) *backend {
	be := b.add(name)
	b.open(be, host)
	return be
}

func (b *balancer) Check(ctx context.Context, be *backend) { b.check(ctx, be) }

func (b *balancer) Drain(ctx context.Context, be *backend) error { return b.drain(ctx, be) }
