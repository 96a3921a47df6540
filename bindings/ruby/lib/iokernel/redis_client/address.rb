# frozen_string_literal: true

module IOKernel
  # What redis-client's driver is made of.
  module RedisDriver
    # The endpoints behind redis-client's configurations: one for each server, user, database and name, in the default
    # kernel, shared by all clients of the process and alive as long as it.
    module Address
      TLS = {ca_file: :tls_ca, cert: :tls_cert, key: :tls_key}.freeze
      @endpoints = {}
      @lock = Monitor.new

      module_function

      # The endpoint of a configuration.
      def endpoint(config)
        url, options = url(config), options(config)
        @lock.synchronize do
          found = @endpoints[[url, options]]
          found = @endpoints[[url, options]] = IOKernel.open(url, **options) if found.nil? || found.kernel.closed?
          found
        end
      end

      def url(config)
        secret = "#{escape(config.username)}:#{escape(config.password)}@" if config.password
        return "unix://#{secret}#{config.path}?db=#{config.db}" if config.path

        host = config.host.include?(":") ? "[#{config.host}]" : config.host
        "redis#{"s" if config.ssl}://#{secret}#{host}:#{config.port}/#{config.db}"
      end

      def options(config)
        tls = config.ssl ? config.ssl_context : {}
        {protocol: config.protocol == 2 ? 2 : 3, client_name: config.id, **tls}.compact
      end

      # What redis-client calls `ssl_params`, as options of an endpoint.
      def tls_options(params)
        wrong = params.keys - [*TLS.keys, :verify_mode, :hostname, :min_version]
        raise ArgumentError, "ssl_params: #{wrong.join(", ")}: expected ca_file, cert, key, hostname or verify_mode" if
          wrong.any?

        options = TLS.filter_map { |given, ours| [ours, params[given]] if params[given] }.to_h
        options[:tls_server_name] = params[:hostname] if params[:hostname]
        options[:tls_verify] = false if params[:verify_mode]&.zero?
        options
      end

      def escape(text)
        ERB::Util.url_encode(text.to_s)
      end
    end
  end
end
