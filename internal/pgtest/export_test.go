package pgtest

import "context"

var (
	Install       = install
	DockerAnswers = dockerAnswers
)

// GiveToAccount gives a file to the account that runs the servers.
func GiveToAccount(path string) error {
	as, err := serverAccount()
	if err != nil {
		return err
	}
	return as.own(path)
}

// Installed gives the newest server binaries of this machine, "" where there are none.
func Installed(ctx context.Context) (dir, version string) {
	as, err := serverAccount()
	if err != nil {
		return "", ""
	}
	for _, b := range findBinaries(ctx, Options{}.binDirs(), as) {
		return b.dir, b.version
	}
	return "", ""
}
