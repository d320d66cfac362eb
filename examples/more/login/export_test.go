package main

import "time"

var (
	DeviceLabel  = deviceLabel
	HashPassword = hashPassword
	IsPassword   = isPassword
)

// Ago is how long ago d is, in words.
func Ago(d time.Duration) string { return moment{time.Now().Add(-d)}.Ago() }
