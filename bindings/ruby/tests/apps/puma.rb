# frozen_string_literal: true

workers 2
threads 4, 4
preload_app!
log_requests false
silence_single_worker_warning
