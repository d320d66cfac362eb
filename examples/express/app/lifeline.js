'use strict';

// Loaded before server.js by the program that starts it (node --require), which
// holds the other end of the standard input. That end closes however that program
// ends, killed included, on every system; then this one is not needed any more.

process.stdin.on('end', () => process.emit('SIGTERM')).resume().unref();
