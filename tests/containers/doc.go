// Package containers tests what examples/containers says about an image, about
// compose and about Kubernetes: in an engine where there is one, else each step as
// far as that goes without.
package containers
