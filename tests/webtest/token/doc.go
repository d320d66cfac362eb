// Package token tests sessions without cookies in a real browser: a page on another
// site that holds a token.
package token
