package main

const Pending = pending

const DatabaseTimeout = databaseTimeout

type Ceremony = ceremony

var Begin = begin
