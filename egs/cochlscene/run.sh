#!/usr/bin/env bash
exec "$(dirname "${BASH_SOURCE[0]}")/../../run.sh" --recipe "$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)" "$@"
