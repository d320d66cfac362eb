package main

const Pending = pending

type Ceremony = ceremony

var Begin = begin
