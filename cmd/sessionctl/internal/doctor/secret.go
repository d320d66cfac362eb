package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pgsession/session/internal/secret"
)

const (
	makeOne   = `make one with "openssl rand -base64 48"`
	keepOld   = makeOne + `, and keep this one in SESSION_SECRET_OLD (SESSION_SECRET_OLD_FILE if it has a space) until its sessions have ended (docs/operations.md has the steps)`
	forgetOld = makeOne + `. Leave this one out, and everybody logs in again; or keep it in SESSION_SECRET_OLD (SESSION_SECRET_OLD_FILE if it has a space) until its sessions have ended, and for so long cookies count that anybody can have signed`
	dropOld   = `drop it once its sessions have ended (docs/operations.md has the steps): until then cookies count that somebody may have forged`
)

func (e *exam) secret(context.Context) error {
	if e.Secret == "" {
		e.find("secret", Hint, "SESSION_SECRET is not set here: not checked").
			advise("run this again with the program's SESSION_SECRET")
		return nil
	}
	for i, s := range append([]string{e.Secret}, e.OldSecrets...) {
		name := "SESSION_SECRET"
		if i > 0 {
			name = fmt.Sprintf("number %d of SESSION_SECRET_OLD", i)
		}
		level, fault, advice := judgeSecret(s)
		if i > 0 {
			advice = dropOld
		}
		if level != OK {
			e.find("secret", level, fmt.Sprintf("%s (fingerprint %s) %s", name, secret.Fingerprint(s), fault)).advise(advice)
		}
	}
	switch {
	case slices.Contains(e.OldSecrets, e.Secret):
		e.find("secret", Hint, "SESSION_SECRET is in SESSION_SECRET_OLD as well").advise("leave it out there")
	case !slices.ContainsFunc(e.report.Findings, func(f Finding) bool { return f.Check == "secret" }):
		e.ok("secret", fmt.Sprintf("fingerprint %s, %d bytes, at a guess over %d bits of randomness; %d old ones%s", secret.Fingerprint(e.Secret),
			len(e.Secret), secret.MinBits, len(e.OldSecrets), strings.TrimRight(": "+strings.Join(secret.Fingerprints(e.OldSecrets), ", "), ": ")))
	}
	return nil
}

// judgeSecret says how easily a secret may be guessed, as the library does when it
// starts, and what to do. What it says holds nothing of the secret.
func judgeSecret(s string) (level Level, what, advice string) {
	switch v, why := secret.Judge(s); v {
	case secret.Public:
		return Error, why, forgetOld
	case secret.Short:
		return Error, why, keepOld
	case secret.Doubtful:
		return Warning, why, keepOld
	}
	return OK, "", ""
}
