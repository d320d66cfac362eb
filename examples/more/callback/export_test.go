package main

var (
	NewShop     = newShop
	NewProvider = newProvider
)
