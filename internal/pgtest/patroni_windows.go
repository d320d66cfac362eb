package pgtest

import "errors"

// signalsWork reports whether processes can be frozen here.
func signalsWork() error { return errors.ErrUnsupported }

func freeze(int) error { return errors.ErrUnsupported }
func thaw(int) error   { return errors.ErrUnsupported }
func kill(int) error   { return errors.ErrUnsupported }

func watchOverAll(string, *account) (*watchdog, error) { return nil, errors.ErrUnsupported }
