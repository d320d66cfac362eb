package main

var NewApp = newApp
