package session

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/pgsession/session/internal/bearer"
	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/devicebound"
	"github.com/pgsession/session/internal/seal"
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
}

func (k *keys) codec() cookie.Codec { return k.signing.Load().codec }

// tokens needs Config.DeviceBound.
func (k *keys) tokens() *devicebound.Tokens { return k.signing.Load().tokens }

func (k *keys) bearer() *bearer.Codec { return k.signing.Load().bearer }

// change is use for secrets that come later, checked like those of New.
func (k *keys) change(cfg *Config, sealer *atomic.Pointer[seal.Sealer]) error {
	var errs []error
	cfg.checkSecrets(func(format string, args ...any) {
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
	cfg.Logger.Info("session: secrets changed", "oldSecrets", len(cfg.OldSecrets))
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
	k.signing.Store(&signing{codec, tokens, tokensOfClients})
	return nil
}
