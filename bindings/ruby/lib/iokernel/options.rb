# frozen_string_literal: true

require "erb"

module IOKernel
  # Options as URLs and configurations have them.
  module Options
    module_function

    # `key=value&key=value`; nil leaves an option out.
    def query(options)
      options.compact.map { |key, value| "#{escape(key.to_s)}=#{escape(text(key, value))}" }.join("&")
    end

    # A URL whose query has these options too.
    def url(url, options)
      raise wrong("url", url, "a String") unless url.is_a?(String)
      raise wrong("url", url, "no zero byte") if url.include?("\0")

      more = query(options)
      return url if more.empty?

      joint = if url.end_with?("?", "&") then ""
              else
                url.include?("?") ? "&" : "?"
              end
      "#{url}#{joint}#{more}"
    end

    # A URL without its query and password.
    def shown(url)
      before = url[/\A[^?]*/]
      before.sub(%r{\A([^/]*//)([^/@:]*)(?::[^/]*)?@}, '\1\2:***@')
    end

    def text(key, value)
      case value
      when String, Symbol, Integer, true, false then value.to_s
      when ->(one) { one.respond_to?(:to_path) } then value.to_path
      else raise wrong(key, value.inspect, 'a String, Symbol, Integer, true or false, as in heartbeat: "5s"')
      end
    end

    def escape(text)
      ERB::Util.url_encode(text)
    end

    def wrong(key, value, expected)
      ConfigError.new("#{key}: \"#{value}\": expected #{expected}", code: "BADCONFIG", status: -105)
    end
  end
  private_constant :Options
end
