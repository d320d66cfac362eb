// Package domains tests with a real Chromium what it makes of a cookie whose domain
// is chosen by the request's host.
package domains
