// Command download fetches PostgreSQL's server binaries into PGTEST_DOWNLOAD_DIR,
// runs a server once to see that they work here, and says where they are.
package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
	"github.com/pgsession/session/internal/pgtest/provider"
)

func main() { provider.Exit(run()) }

func run() error {
	dir := os.Getenv("PGTEST_DOWNLOAD_DIR")
	if dir == "" {
		return errors.New("PGTEST_DOWNLOAD_DIR is not set")
	}
	scratch, err := os.MkdirTemp(dir, "first-run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	binaries := filepath.Join(dir, "postgresql")
	// An earlier run may have been interrupted while it unpacked.
	if err := os.RemoveAll(binaries); err != nil {
		return err
	}
	cfg := embeddedpostgres.DefaultConfig().
		CachePath(dir).
		BinariesPath(binaries).
		RuntimePath(filepath.Join(scratch, "run")).
		DataPath(filepath.Join(scratch, "data")).
		Port(uint32(20000 + rand.IntN(12000))).
		StartParameters(map[string]string{"unix_socket_directories": "", "fsync": "off"}).
		StartTimeout(time.Minute).
		Logger(os.Stderr)
	if url := os.Getenv("PGTEST_BINARY_REPOSITORY"); url != "" {
		cfg = cfg.BinaryRepositoryURL(url)
	}
	server := embeddedpostgres.NewDatabase(cfg)
	if err := server.Start(); err != nil {
		return err
	}
	if err := server.Stop(); err != nil {
		return fmt.Errorf("stop the first run: %w", err)
	}
	return provider.Serve(provider.Offer{BinDir: filepath.Join(binaries, "bin")})
}
