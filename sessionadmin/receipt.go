package sessionadmin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// receiptTimeout is how long the address that an ending leads to says how many
// sessions were ended: for a redirect, not for a bookmark.
const receiptTimeout = time.Minute

// receipt is the part of an address that says that n sessions of q were ended at
// that time. With a key of this Handler alone: else anybody could make a link whose
// page says that sessions were ended, and none were.
func (h *Handler) receipt(q query, n int64, at time.Time) string {
	said := fmt.Sprintf("%d.%d", n, at.Unix())
	mac := hmac.New(sha256.New, h.key)
	fmt.Fprintf(mac, "%s %q %q", said, q.Key, q.Value)
	return said + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// receipted returns what a receipt says, if it is one of ours, of this query, and
// of the last minute.
func (h *Handler) receipted(q query, receipt string) (n int64, ok bool) {
	count, rest, _ := strings.Cut(receipt, ".")
	second, _, _ := strings.Cut(rest, ".")
	n, countErr := strconv.ParseInt(count, 10, 64)
	unix, timeErr := strconv.ParseInt(second, 10, 64)
	if countErr != nil || timeErr != nil {
		return 0, false
	}
	at := time.Unix(unix, 0)
	if !hmac.Equal([]byte(receipt), []byte(h.receipt(q, n, at))) {
		return 0, false
	}
	return n, time.Since(at) < receiptTimeout
}
