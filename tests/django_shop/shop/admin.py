from django.contrib import admin

from .models import Customer, Product

admin.site.register(Customer)


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ("name", "price", "made")
    list_filter = ("kind",)
    search_fields = ("name",)
    date_hierarchy = "made"
