package fromscs

import (
	"log/slog"

	"github.com/rs/zerolog"
	"github.com/sirupsen/logrus"
	logrusslog "github.com/sirupsen/logrus/hooks/slog"
)

// forLogrus is for logrus 1.10 and later: Logger: slog.New(forLogrus(log)).
func forLogrus(log *logrus.Logger) slog.Handler { return logrusslog.NewHandler(log, nil) }

// forZerolog is for zerolog 1.35 and later.
func forZerolog(log zerolog.Logger) slog.Handler { return zerolog.NewSlogHandler(log) }
