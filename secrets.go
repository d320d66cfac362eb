package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/pgsession/session/internal/bearer"
	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/devicebound"
	"github.com/pgsession/session/internal/seal"
	"github.com/pgsession/session/internal/secret"
)

// keys are what is derived from the secrets, but for what the engine has.
type keys struct {
	changing sync.Mutex
	signing  atomic.Pointer[signing]
}

// signing is what signs for browsers, and verifies what they bring.
type signing struct {
	codec  cookie.Codec
	tokens *devicebound.Tokens // nil unless Config.DeviceBound is set
	bearer *bearer.Codec       // nil unless Config.TokenPrefix is set

	current string   // the fingerprint of what signs
	old     []string // those of what verifies beside it

	warnedCookie, warnedToken atomic.Bool // of one that does not verify
}

// attrs name the secrets in a log, and say which of them signs.
func (s *signing) attrs() []slog.Attr {
	return []slog.Attr{slog.String("secretFingerprint", s.current), slog.Any("oldFingerprints", s.old)}
}

func (k *keys) codec() cookie.Codec { return k.signing.Load().codec }

// tokens needs Config.DeviceBound.
func (k *keys) tokens() *devicebound.Tokens { return k.signing.Load().tokens }

func (k *keys) bearer() *bearer.Codec { return k.signing.Load().bearer }

// change is use for secrets that come later, checked like those of New.
func (k *keys) change(cfg *Config, strict bool, sealer *atomic.Pointer[seal.Sealer]) error {
	var errs []error
	cfg.checkSecrets(strict, func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("session: SetSecrets: "+format, args...))
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	k.changing.Lock()
	defer k.changing.Unlock()
	if err := k.use(cfg, sealer); err != nil {
		return err
	}
	cfg.warnSecrets()
	cfg.Logger.LogAttrs(context.Background(), slog.LevelInfo, "session: secrets changed",
		append([]slog.Attr{slog.Int("oldSecrets", len(cfg.OldSecrets))}, k.signing.Load().attrs()...)...)
	return nil
}

// use derives every key from the secrets of cfg, and then uses them.
func (k *keys) use(cfg *Config, sealer *atomic.Pointer[seal.Sealer]) error {
	secrets := append([]string{cfg.Secret}, cfg.OldSecrets...)
	codec, err := cookie.NewCodec(secrets, cfg.Cookie.Format == FormatExpress)
	if err != nil {
		return err
	}
	s, err := seal.New(secrets, cfg.UserKey)
	if err != nil {
		return err
	}
	var tokens *devicebound.Tokens
	if cfg.DeviceBound.Refresh != 0 {
		if tokens, err = devicebound.NewTokens(secrets); err != nil {
			return err
		}
	}
	var tokensOfClients *bearer.Codec
	if cfg.TokenPrefix != "" {
		if tokensOfClients, err = bearer.NewCodec(secrets, cfg.TokenPrefix); err != nil {
			return err
		}
	}
	// What can be opened first: who gets a cookie can read what it names.
	sealer.Store(&s)
	k.signing.Store(&signing{
		codec: codec, tokens: tokens, bearer: tokensOfClients,
		current: secret.Fingerprint(cfg.Secret), old: secret.Fingerprints(cfg.OldSecrets),
	})
	return nil
}

// checkSecrets never lets a secret into the error. strict says that the sessions are
// worth forging: a [MemoryStore] is for development and tests, where a secret that
// everybody knows is no more than a warning.
func (cfg *Config) checkSecrets(strict bool, fault func(string, ...any)) {
	express := cfg.Cookie.Format == FormatExpress // shared with an existing application: any length, warned about
	const remedy = `needs at least 32: make one with "openssl rand -base64 48"`
	switch n := len(cfg.Secret); {
	case express && n == 0:
		fault("Config.Secret is empty: use the secret of the Express application")
	case !express && n < secret.MinBytes:
		fault("Config.Secret (SESSION_SECRET) has %d bytes, %s", n, remedy)
	case strict:
		if v, why := secret.Judge(cfg.Secret); v == secret.Public {
			fault(publicSecret, why)
		}
	}
	for i, s := range cfg.OldSecrets {
		switch n := len(s); {
		case express && n == 0: // a cookie signed with it opens any session whose ID is known
			fault("Config.OldSecrets[%d] (SESSION_SECRET_OLD) is empty: leave it out", i)
		case !express && n < secret.MinBytes:
			fault("Config.OldSecrets[%d] (SESSION_SECRET_OLD) has %d bytes, %s", i, n, remedy)
		}
	}
}

// publicSecret says how to get away from one, for an application that has users. With
// an old secret their cookies live on, which is why that is no fault.
const publicSecret = `Config.Secret (SESSION_SECRET) %s. Make one with "openssl rand -base64 48" and give it to every program that shares the sessions, Express too. ` +
	`Leave this one out, and everybody logs in once more; or keep it among the old ones (SESSION_SECRET_OLD, or one a line in the file that SESSION_SECRET_OLD_FILE names if it has a space; in Express the second of its secrets) ` +
	`until its sessions have ended: that is a warning, for so long cookies count that anybody can have signed`

// warnSecrets warns of what may be guessed, in the words of "sessionctl doctor".
func (cfg *Config) warnSecrets() {
	short := false
	for i, s := range append([]string{cfg.Secret}, cfg.OldSecrets...) {
		which := "SESSION_SECRET"
		if i > 0 {
			which = fmt.Sprintf("number %d of SESSION_SECRET_OLD", i)
		}
		switch v, why := secret.Judge(s); v {
		case secret.Public:
			cfg.Logger.Warn("session: a secret is none: cookies count that anybody can have signed; replace it", "secret", which, "why", why, "fingerprint", secret.Fingerprint(s))
		case secret.Doubtful:
			cfg.Logger.Warn("session: a secret does not look random, and may be guessed from a cookie; replace it, keeping the old one in SESSION_SECRET_OLD (SESSION_SECRET_OLD_FILE if it has a space) for a while", "secret", which, "why", why, "fingerprint", secret.Fingerprint(s))
		case secret.Short: // in Express's format
			short = true
		}
	}
	if short {
		cfg.Logger.Warn("session: a secret has under 32 bytes and may be guessed from a cookie; replace it in Express and here, keeping the old one in SESSION_SECRET_OLD (SESSION_SECRET_OLD_FILE if it has a space) for a while")
	}
}
