// Package patroni keeps two programs under load on a failover cluster, three
// PostgreSQL servers in the care of Patroni, and accounts for every answer while
// the leader is killed, frozen, or hands over. What it says of a synchronous
// cluster is checked; of an asynchronous one, which may lose what it has
// acknowledged, it is printed.
//
//	go test ./patroni                        # synchronous, by HAProxy
//	go test ./patroni -every -v -timeout 40m # and asynchronous, and without a proxy
package patroni
