// Package settings tests with a real Chromium what becomes of those who are logged
// in when the settings of the cookie change in a running service.
package settings
