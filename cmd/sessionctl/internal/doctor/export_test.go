package doctor

import "time"

// JudgeVersion is the check of the server's major version.
func JudgeVersion(major int) Finding {
	e := &exam{}
	e.judgeVersion(major)
	return e.report.Findings[0]
}

// SetLongTransaction changes what counts as a long transaction, until undo.
func SetLongTransaction(d time.Duration) (undo func()) {
	was := longTransaction
	longTransaction = d
	return func() { longTransaction = was }
}

// JudgeSecret is the check of one secret.
func JudgeSecret(s string) (Level, string) {
	level, what, advice := judgeSecret(s)
	return level, what + advice
}

// SetCheckTimeout changes how many seconds a check may take.
func SetCheckTimeout(seconds int) (undo func()) {
	old := checkTimeout
	checkTimeout = time.Duration(seconds) * time.Second
	return func() { checkTimeout = old }
}

// StartMessages are the beginnings of the library's warnings that the checks know.
func StartMessages() (messages []string) {
	for _, c := range startChecks {
		messages = append(messages, c.message)
	}
	return messages
}
