package doctor

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// What a check could not read is not always forbidden: the server may be away.
func TestRemedy(t *testing.T) {
	for _, tt := range []struct {
		err  error
		late bool
		want string
	}{
		{&pgconn.PgError{Code: "42501"}, false, "as a user who may read it"},
		{errors.New("anything"), false, "as a user who may read it"},
		{&pgconn.PgError{Code: "08006"}, false, "when the server answers, and all workers"},
		{&pgconn.PgError{Code: "57P01"}, false, "when the server answers, and all workers"},
		{&pgconn.PgError{Code: "XX000"}, false, "when the server answers, and all workers"},
		{errors.New("no answer within 10s"), true, "when the server has less to do"},
	} {
		if got := remedy(tt.err, tt.late); !strings.Contains(got, tt.want) {
			t.Errorf("remedy of %v, late %t: got %q, want %q in it", tt.err, tt.late, got, tt.want)
		}
	}
}
